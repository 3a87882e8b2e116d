"""Tables. Times are seconds since 1970-01-01 UTC by the database's clock. No patient identity is kept here
but a pseudonym of issuer and Patient ID, by which earlier studies of the same patient are found, and for
purged images one of all that they said of patient and order, by which a corrected identity is noticed. Both
are made with the installation's key, which is not in the database (`node.store.installation`).

`migrations/` makes these tables; a test holds the two equal.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Date,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from node.store.states import QuarantineKind

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)


def _partial(name: str, *columns: str, where: str) -> Index:
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


installation = Table(
    "installation",  # what is known of it as a whole: see node.store.installation
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", Text, nullable=False),
)

studies = Table(
    "studies",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("generation", Integer, nullable=False),  # from 1; a late CT instance begins the next
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),  # why it stands where it stands
    Column("declared_qct", Boolean, nullable=False),  # a person asked for this study by name
    Column("created_at", Float, nullable=False),
    Column("last_received_at", Float),  # of a CT instance; NULL before the first
    Index("ix_studies_state", "state", "created_at", "study_instance_uid"),
    Index("ix_studies_created_at", "created_at"),
)

associations = Table(
    "associations",
    metadata,
    Column("association_id", Integer, primary_key=True),
    Column("peer", String(64), nullable=False),  # network address
    Column("calling_ae", String(16), nullable=False),
    Column("called_ae", String(16), nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("heartbeat_at", Float, nullable=False),
    Column("closed_at", Float),
    _partial("ix_associations_open", "association_id", where="closed_at IS NULL"),
)

instances = Table(
    "instances",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("series_instance_uid", String(64), nullable=False),
    Column("study_instance_uid", String(64), ForeignKey("studies.study_instance_uid"), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),  # of the data set as received, without the file header
    Column("path", Text, nullable=False),  # relative to the storage root; "" for the node's own objects
    Column("size_bytes", Integer, nullable=False),
    Column("received_at", Float, nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("called_ae", String(16), nullable=False),
    Column("association_id", Integer, ForeignKey("associations.association_id")),
    Column("own", Boolean, nullable=False),  # made here and come back
    Column("promised_at", Float),  # when storage commitment was asked for it; retention leaves it
    Column("purged_at", Float),  # when retention removed the file; NULL while it is kept
    Column("image_sha256", String(64)),  # fingerprints of a purged file, NULL where it could not be decoded:
    Column("identity_hmac", String(64)),  # see ContentComparison; of the second a pseudonym
    Index("ix_instances_study_instance_uid", "study_instance_uid"),
    Index("ix_instances_association_id", "association_id"),
    # What retention asks every minute, in a table that keeps a row of every image that ever came.
    _partial("ix_instances_kept", "study_instance_uid", "received_at", where="purged_at IS NULL"),
    _partial("ix_instances_promised", "study_instance_uid", where="promised_at IS NOT NULL"),
    _partial("ix_instances_unswept", "path", where="purged_at IS NOT NULL AND path <> ''"),
)

generations = Table(
    "generations",  # from the second on: why a study was begun again; one generation may have several reasons
    metadata,
    Column("study_instance_uid", String(64), ForeignKey("studies.study_instance_uid"), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("reason", String(100), nullable=False),
    Column("began_at", Float, nullable=False),
    PrimaryKeyConstraint("study_instance_uid", "generation", "reason"),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("quarantine_id", Integer, primary_key=True),
    Column("sop_instance_uid", String(64), nullable=False),  # "" where it could not be read, as the next
    Column("study_instance_uid", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("path", Text, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("received_at", Float, nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("called_ae", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("kind", String(24), nullable=False, server_default=QuarantineKind.CONTENT),
    Column("transfer_syntax_uid", String(64), nullable=False, server_default=""),  # "" in older rows
    UniqueConstraint("sop_instance_uid", "sha256"),
    Index("ix_quarantine_study_instance_uid", "study_instance_uid"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", Integer, primary_key=True),
    Column("study_instance_uid", String(64), ForeignKey("studies.study_instance_uid"), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("step", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),  # of this step, since its last success
    Column("not_before", Float, nullable=False),
    Column("lease_owner", String(128)),
    Column("lease_until", Float),
    Column("token", Integer, nullable=False),  # fencing token: grows with each claim and each revocation
    Column("last_error", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    # What showed that the study was whole: a ClosedBy and the whole as JSON; "" and NULL in older rows.
    Column("closed_by", String(16), nullable=False, server_default=""),
    Column("completeness", Text),
    # What its first step was done with, and who else may go on with it; "" where anybody may.
    Column("software", String(255), nullable=False, server_default=""),
    Column("configuration_sha256", String(64), nullable=False, server_default=""),
    Column("begun_again", Text),  # why, where its first steps were done twice
    Column("avoids", String(255), nullable=False, server_default=""),  # a host that lacked a file
    Column("calling_ae", String(16), nullable=False, server_default=""),  # of the study's first image
    Column("urgent", Boolean, nullable=False, server_default=false()),
    UniqueConstraint("study_instance_uid", "generation"),
    Index("ix_jobs_state", "state", "not_before"),
)

workers = Table(
    "workers",
    metadata,
    Column("worker_id", String(300), primary_key=True),  # the owner of its leases
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("queues", String(255), nullable=False),  # with commas
    Column("engine", String(128), nullable=False),  # in words; "" of one that does not segment
    Column("software", String(255), nullable=False),
    Column("configuration_sha256", String(64), nullable=False),
    Column("problem", Text, nullable=False),  # why it takes no work; "" where it does
    Column("started_at", Float, nullable=False),
    Column("heartbeat_at", Float, nullable=False),
    Column("ended_at", Float),  # NULL unless it was stopped in good order
)

parts = Table(
    "parts",  # of a node: its processes, and the threads that do one thing again and again
    metadata,
    Column("name", String(64), primary_key=True),
    Column("beats", Boolean, nullable=False),  # says when it has finished a round
    Column("started_at", Float, nullable=False),
    Column("heard_at", Float, nullable=False),
    Column("ended", Boolean, nullable=False),  # in good order
    Column("deaths", Integer, nullable=False),  # of those that came shortly after one another
    Column("died_at", Float),  # when the last of them was noticed
)

artefacts = Table(
    "artefacts",
    metadata,
    Column("study_instance_uid", String(64), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("name", String(64), nullable=False),
    Column("step", String(16), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("path", Text, nullable=False),  # relative to the storage root
    Column("size_bytes", Integer, nullable=False),
    Column("parameters", Text, nullable=False),  # JSON: software version, hash of the configuration
    Column("written_at", Float, nullable=False),
    Column("removed_at", Float),  # when retention removed the file; NULL while it is kept
    PrimaryKeyConstraint("study_instance_uid", "generation", "name"),
    ForeignKeyConstraint(["study_instance_uid"], ["studies.study_instance_uid"]),
    Index("ix_artefacts_path", "path"),
    _partial("ix_artefacts_unswept", "path", where="removed_at IS NOT NULL AND path <> ''"),
)

reports = Table(
    "reports",
    metadata,
    Column("study_instance_uid", String(64), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("issued_at", String(40), nullable=False),  # ISO 8601 with offset: minted once, used by every retry
    Column("predecessor_uid", String(64)),
    Column("amendment_reason", Text),
    Column("predecessor_issued_at", String(40)),  # NULL, too, in rows from before it was asked for
    Column(
        "predecessor_class_uid", String(64)
    ),  # of one that only an archive knew; NULL: as it was made here
    Column("sop_instance_uid", String(64)),  # of the structured report, once made
    PrimaryKeyConstraint("study_instance_uid", "generation"),
    ForeignKeyConstraint(["study_instance_uid"], ["studies.study_instance_uid"]),
)

objects = Table(
    "objects",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("sop_class_uid", String(64), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("study_instance_uid", String(64), ForeignKey("studies.study_instance_uid"), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("artefact", String(64), nullable=False),  # its name among the artefacts
    Column("promised_at", Float),  # when storage commitment was asked for it; retention leaves it
    Index("ix_objects_study_instance_uid", "study_instance_uid", "generation"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("sop_instance_uid", String(64), ForeignKey("objects.sop_instance_uid"), nullable=False),
    Column("destination", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("pending_since", Float, nullable=False),
    Column("not_before", Float, nullable=False),
    Column("status", Integer),  # the last DIMSE status; NULL where no answer came
    Column("detail", Text, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("sent_at", Float),  # when the peer last answered that it stored the object
    Column("proof", String(16), nullable=False, server_default=""),  # "" while it is not known how
    Column("proven_at", Float),
    Column("asked", Integer, nullable=False, server_default="0"),  # for proof, since it was last sent
    Column("resent", Integer, nullable=False, server_default="0"),  # because the peer had lost it
    PrimaryKeyConstraint("sop_instance_uid", "destination"),
    Index("ix_deliveries_state", "state"),
)

# Storage commitment that this node asks of others: the row stands before the N-ACTION leaves.
transactions = Table(
    "transactions",
    metadata,
    Column("transaction_uid", String(64), primary_key=True),
    Column("destination", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("requested_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)

transaction_items = Table(
    "transaction_items",
    metadata,
    Column("transaction_uid", String(64), ForeignKey("transactions.transaction_uid"), nullable=False),
    Column("sop_instance_uid", String(64), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    PrimaryKeyConstraint("transaction_uid", "sop_instance_uid"),
    Index("ix_transaction_items_sop_instance_uid", "sop_instance_uid"),
)

# Storage commitment that others ask of this node: the row stands before the N-ACTION is answered.
promises = Table(
    "promises",
    metadata,
    Column("promise_id", Integer, primary_key=True),
    Column("transaction_uid", String(64), nullable=False),
    Column("calling_ae", String(16), nullable=False),  # who is told
    Column("asked_sha256", String(64), nullable=False),  # of the instances asked about
    Column("content", Text, nullable=False),  # JSON: what is committed, and what is not and why
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),  # to tell it
    Column("not_before", Float, nullable=False),
    Column("detail", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    UniqueConstraint("transaction_uid", "calling_ae"),
    Index("ix_promises_state", "state", "not_before"),
)

activations = Table(
    "activations",  # of model cards: rows are added, and none is changed or removed
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),  # from 1
    Column("content", Text, nullable=False),  # JSON: see node.store.activations
)

feature_standings = Table(
    "feature_standings",
    metadata,
    Column("host", String(255), primary_key=True),
    Column("drifted", Integer, nullable=False),  # features of the known image, of those checked
    Column("checked", Integer, nullable=False),
    Column("example", Text, nullable=False),
    Column("tried_at", Float, nullable=False),
)

scans = Table(
    "scans",
    metadata,
    Column("study_instance_uid", String(64), ForeignKey("studies.study_instance_uid"), primary_key=True),
    Column("patient_hmac", String(64), nullable=False),  # of issuer and id: finds the same patient again
    Column("taken_on", Date, nullable=False),
    Column("content", Text, nullable=False),  # JSON: conditions and densities
    Index("ix_scans_patient_hmac", "patient_hmac"),
)

phantom_readings = Table(
    "phantom_readings",
    metadata,
    Column("source_uid", String(64), primary_key=True),  # of a series; of single-slice QCT, of the image
    Column("study_instance_uid", String(64), ForeignKey("studies.study_instance_uid"), nullable=False),
    Column("device_serial", String(64), nullable=False),
    Column("model", String(64), nullable=False),
    Column("kvp", Float, nullable=False),
    Column("kernel", String(64), nullable=False),
    Column("phantom", String(64), nullable=False),  # "" where no model could be told
    Column("phantom_serial", String(64), nullable=False),  # "" where it is not known
    Column("taken_on", Date, nullable=False),
    Column("slope", Float),  # NULL, as the next two, where the rods give no line
    Column("intercept", Float),
    Column("water_hu", Float),
    Column("r2", Float),
    Column("tilt_degrees", Float),
    Column("kept_at", Float, nullable=False),  # for the first time
    Column("taken_at", String(16), nullable=False, server_default=""),  # time of day, "" where not stated
    Column("technique", Text),  # JSON; NULL in rows from before it was asked for
    Column("calibration", Text),  # JSON, of a phantom that passed every check; NULL: not to be lent
    Column("equivalent", String(16)),  # mineral; NULL in rows from before it was asked for
    Column("findings", Text, nullable=False, server_default="[]"),  # JSON: codes of what is said against it
    Column("failed", Boolean, nullable=False, server_default=false()),  # whether they forbid a density
    Column("alone", Boolean, nullable=False, server_default=false()),  # no patient in the beam
    Index("ix_phantom_readings_device_serial", "device_serial"),
)
