"""Tokens to words, segments, subtitles and JSON; names of languages; merging of overlapping transcripts."""
