"""Showing results: tables for the terminal and figures for papers."""
