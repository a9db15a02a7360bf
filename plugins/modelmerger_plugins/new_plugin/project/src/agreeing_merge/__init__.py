"""Plugins of modelmerger."""
