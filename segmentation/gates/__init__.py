"""Gates: what bars a body, a region or the whole image from being read. They return observations."""
