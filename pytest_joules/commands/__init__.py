"""What the ``joules`` command does; each job gives an answer for people and for machines."""
