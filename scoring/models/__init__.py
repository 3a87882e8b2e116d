"""Models: their cards, the nomogram, whom they may score, and two of them compared."""
