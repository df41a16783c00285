//! The boundary to Python: one file for each class or family of functions, registered here.

mod api;
mod custom;
mod datastore;
mod etcd;
mod front;
mod managed;
mod proxy;
mod scheduler;
mod socket;
mod store;

use pyo3::prelude::*;

#[pymodule(name = "_native", gil_used = false)]
mod native {
    use super::*;

    /// Version of the extension, equal to the distribution's.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    use super::proxy::Proxy;
    #[pymodule_export]
    use super::scheduler::{Decision, Room, Scheduler};

    #[pymodule_export]
    use super::datastore::{Datastore, DatastoreError};
    #[pymodule_export]
    use super::etcd::EtcdFront;

    #[pymodule_export]
    use super::front::Front;

    #[pymodule_export]
    use super::api::{
        MalformedPatch, Schema, UnprocessablePatch, merge_patch, protobuf_to_json,
        quantity_canonical, quantity_milli, quantity_value, strategic_merge_patch,
    };

    #[pymodule_export]
    use super::custom::{CelExpression, CelValue, StructuralSchema};

    #[pymodule_export]
    use super::managed::{
        ApplyConflict, FieldManager, UnfitConfiguration, part_object, peel_managers,
        scale_managers, scaled_managers,
    };

    #[pymodule_export]
    use super::store::{
        Compacted, FutureRevision, KeyExists, KeyMissing, LeaseExists, LeaseNotFound, Page, Record,
        RevisionMismatch, Store, StoreCorrupt, StoreError, StoreFull, StoreLocked, StorePoisoned,
        WatcherLagged,
    };

    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        Ok(())
    }
}
