"""What training takes on machines that are not here: memory, time and traffic by arithmetic, without torch."""
