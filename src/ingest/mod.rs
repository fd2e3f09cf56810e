//! From what publishers send to drafts (sans-IO). Stream entries are decoded beside their reader, in `log/redis`.

pub mod publish;
