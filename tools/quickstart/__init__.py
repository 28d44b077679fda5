"""Lexicon and grammar of the quick-start corpus."""
