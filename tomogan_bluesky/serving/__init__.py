"""The same engine on another machine: documents from a network, derived runs into Tiled."""
