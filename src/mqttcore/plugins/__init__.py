"""Plugins: found, checked, configured, called, and kept from harming the broker."""
