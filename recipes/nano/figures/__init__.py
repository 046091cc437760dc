"""Figures: tables of numbers -> charts, tables and receipts -> questions."""
