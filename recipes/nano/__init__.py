"""nano: the data (and recipe) of an 8M-parameter Kimi-VL that reads lines of text and names emoji."""
