"""How the weights move: Muon, AdamW, and the rate of a step."""
