"""The study of where VICReg fails."""
