"""Questions about pictures that have to be thought about, with worked solutions by programs that know the truth."""
