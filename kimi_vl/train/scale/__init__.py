"""One model over many processes: what is laid round it from outside, and is not there on one device."""
