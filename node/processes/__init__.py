"""Binds the ports of the pipeline to store, network and worker: one module for each kind of process.

They are apart so that the listener, which runs for as long as the node does, loads no image libraries.
"""
