"""What is learned: from a batch to one loss, by the model and by heads that are thrown away after training."""
