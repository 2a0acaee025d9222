"""Run folders: written so that they survive, and read again."""
