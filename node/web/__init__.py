"""The operator's page: what the node holds, whether it is well, and the same for machines. Reads only."""
