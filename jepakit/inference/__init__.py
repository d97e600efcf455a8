"""What one does with a trained run: embed, score, forecast, complete."""
