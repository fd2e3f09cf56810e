//! The namespaces that clients of this node can be in. A session holds an index instead of the name.

use crate::model::names::{MAIN_NAMESPACE, Namespace};

/// The index of a namespace in [`Namespaces`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceIndex(u16);

impl NamespaceIndex {
    /// Any index. [`Namespaces`] gives those that are in its list.
    pub const fn new(index: u16) -> Self {
        Self(index)
    }

    /// Its place in lists with one entry for each namespace.
    pub fn place(self) -> usize {
        usize::from(self.0)
    }
}

/// All namespaces of a node: those of `socketio.namespaces`, and the main one, which `/ws` and SSE clients are in.
#[derive(Clone, Debug)]
pub struct Namespaces {
    names: Vec<Namespace>,
    joinable: usize,
    main: NamespaceIndex,
}

impl Namespaces {
    /// `joinable` are the namespaces that Socket.IO clients may join. What exceeds the range of an index is left out.
    pub fn new(joinable: &[String]) -> Self {
        let mut names: Vec<Namespace> =
            joinable.iter().take(usize::from(u16::MAX)).map(|name| (&**name).into()).collect();
        let joinable = names.len();
        let main = names.iter().position(|name| &**name == MAIN_NAMESPACE).unwrap_or_else(|| {
            names.push(MAIN_NAMESPACE.into());
            joinable
        });
        Self { names, joinable, main: NamespaceIndex(main as u16) }
    }

    /// The namespace of `/ws` and SSE clients.
    pub fn main(&self) -> NamespaceIndex {
        self.main
    }

    /// The index of a namespace; `None` if no client of this node can be in it.
    pub fn find(&self, name: &str) -> Option<NamespaceIndex> {
        self.names.iter().position(|known| &**known == name).map(|index| NamespaceIndex(index as u16))
    }

    /// The same, if Socket.IO clients may join it.
    pub fn find_joinable(&self, name: &str) -> Option<NamespaceIndex> {
        self.find(name).filter(|index| usize::from(index.0) < self.joinable)
    }

    /// The name of a namespace.
    ///
    /// # Panics
    /// For an index that is not from this list.
    pub fn name(&self, index: NamespaceIndex) -> &Namespace {
        &self.names[usize::from(index.0)]
    }

    /// The indexes of all namespaces.
    pub fn indexes(&self) -> impl Iterator<Item = NamespaceIndex> + use<> {
        (0..self.names.len() as u16).map(NamespaceIndex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_namespace_exists_though_socketio_clients_may_not_join_it() {
        let namespaces = Namespaces::new(&["/chat".to_owned()]);
        assert_eq!(&**namespaces.name(namespaces.main()), "/");
        assert_eq!((namespaces.find("/"), namespaces.find_joinable("/")), (Some(namespaces.main()), None));
        assert!(namespaces.find_joinable("/chat").is_some() && namespaces.find("/admin").is_none());
        assert_eq!(namespaces.indexes().count(), 2);
        let both = Namespaces::new(&["/chat".to_owned(), "/".to_owned()]);
        assert_eq!(both.find_joinable("/"), Some(both.main()));
    }
}
