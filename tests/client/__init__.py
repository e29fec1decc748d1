"""Tests of the client against a small server that breaks connections on command."""
