"""The networks: cells, their recurrence over time, attention, encoder, decoder, and the translation model they make."""
