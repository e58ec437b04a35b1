"""The ground floor: pytrees, protocols, the door, the gate, files, errors."""
