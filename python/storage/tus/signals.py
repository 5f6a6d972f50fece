"""What is told of uploads."""

from django.dispatch import Signal

upload_finished = Signal()
"""Sent once for each upload whose final object is stored and whose row says so; not for partial uploads.

``sender`` is the model ``Upload``, ``upload`` the row, ``final`` the ``FinalObject``. An exception of a receiver is
logged, and changes nothing for the client.
"""
