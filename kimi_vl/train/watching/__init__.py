"""What a run tells while it works and afterwards: log, exams, samples, curves, a page."""
