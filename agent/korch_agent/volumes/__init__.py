"""Volumes of pods: one directory of the machine for each, made before the containers and taken away after them."""
