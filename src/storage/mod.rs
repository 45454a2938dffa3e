//! Where archives are kept: the store contract and its backends.
