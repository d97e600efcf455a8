"""The studies of world models: planning in Two Rooms and Pendulum, what it needs, and what predicts its success."""
