"""Cells: one recurrent layer's single time step each; see ``cell.py`` for the contract and the letters."""
