"""One file per published system: config, modules, named sizes, key table of the official checkpoint."""
