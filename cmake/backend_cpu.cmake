# The CPU backend. Files in simd/ are compiled once per instruction set and chosen at run time.
nanocp_module(backend_cpu FOLDERS backend/cpu LINK nanocp_ops PkgConfig::OPENBLAS)
