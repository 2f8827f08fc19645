//! What backs a node. One kind of node, one module: how it is observed, and how it is made.

pub mod pod;
