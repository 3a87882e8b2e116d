"""node.store.migrations"""
