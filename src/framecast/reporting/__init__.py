"""Reporting: tables, curves, animations and the HTML page, from result files and arrays, never from models."""
