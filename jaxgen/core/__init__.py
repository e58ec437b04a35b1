"""The ground floor: pytrees, protocols, checked methods, checked inputs, files, errors."""
