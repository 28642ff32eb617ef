"""JSON schemas as clients write them, in the words that the grammar library can hold an answer to."""
