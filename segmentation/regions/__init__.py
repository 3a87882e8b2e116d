"""Regions of a vertebral body: its surface, its cancellous core, and the mid-body ellipse."""
