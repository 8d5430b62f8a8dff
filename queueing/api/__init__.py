"""The message queue over HTTP (queue contract): one module per part of the contract."""
