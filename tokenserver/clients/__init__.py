"""Registered clients, in the words of RFC 7591."""
