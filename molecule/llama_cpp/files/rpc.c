/* What tells that RPC is in. */
const char *rpc_registration(void) { return "ggml_backend_rpc_add_server"; }
