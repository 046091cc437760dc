"""Rules by which an answer is read and marked, each as one harness has it: text in, values out; no model."""
