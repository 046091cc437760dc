"""Benchmarks: what is read of their files, asked, and made of answers; and whole runs of one."""
