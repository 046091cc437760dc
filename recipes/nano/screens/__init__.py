"""Screens: local pages -> screenshots with the text and the place of all that is on them -> questions."""
