"""What measuring over TVM's RPC adds to times."""
