"""What is learned from: samples, their mixture and how they are packed into one row."""
