"""The roles and bindings that every cluster has, as text: see `policy_text` for how rules are written.

`= NAME [-> subjects]` begins a cluster role, bound cluster-wide to the subjects behind the arrow; `+KEY` marks it as a part of the
aggregated role `KEY`; `sum of KEY` makes a role that gathers those. Their contents mirror kubernetes'
plugin/pkg/auth/authorizer/rbac/bootstrappolicy; those that start with `korch:` are this server's own.
"""

from __future__ import annotations

# What an agent may do beside what the Node authorizer decides by looking at its pods.
NODE_RULES = """
create: tokenreviews.authentication.k8s.io subjectaccessreviews.authorization.k8s.io localsubjectaccessreviews.authorization.k8s.io
read: services
create,get,list,watch: nodes
update,patch: nodes nodes/status
create,patch,update: events events.events.k8s.io
get,list,watch: pods
create,delete: pods
update,patch: pods/status
create: pods/eviction
get,list,watch: secrets configmaps
get: persistentvolumeclaims persistentvolumes
get: volumeattachments.storage.k8s.io
create,get,list,watch: certificatesigningrequests.certificates.k8s.io
get,list,watch: csidrivers.storage.k8s.io runtimeclasses.node.k8s.io
create,get,delete,patch,update: csinodes.storage.k8s.io leases.coordination.k8s.io
get,patch,update: persistentvolumeclaims/status
create: serviceaccounts/token
get: resourceclaims.resource.k8s.io
get,list,watch,create,update,patch,delete,deletecollection: resourceslices.resource.k8s.io
get,list,watch: clustertrustbundles.certificates.k8s.io podcertificaterequests.certificates.k8s.io
create: podcertificaterequests.certificates.k8s.io
"""

CLUSTER_ROLES = """
= cluster-admin -> Group:system:masters
*: *.*
*: /**

= system:discovery -> Group:system:authenticated
get: /livez /readyz /healthz /version /version/ /openapi /openapi/* /api /api/* /apis /apis/*

= system:public-info-viewer -> Group:system:authenticated Group:system:unauthenticated
get: /livez /readyz /healthz /version /version/

= system:basic-user -> Group:system:authenticated
create: selfsubjectaccessreviews.authorization.k8s.io selfsubjectrulesreviews.authorization.k8s.io
create: selfsubjectreviews.authentication.k8s.io

= system:monitoring -> Group:system:monitoring
get: /metrics /metrics/slis /livez /readyz /healthz /livez/* /readyz/* /healthz/*

= system:service-account-issuer-discovery -> Group:system:serviceaccounts
get: /.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/

= system:cluster-trust-bundle-discovery -> Group:system:serviceaccounts
read: clustertrustbundles.certificates.k8s.io

= admin sum of admin
= edit sum of edit +admin
= view sum of view +edit

= system:aggregate-to-admin +admin
create: localsubjectaccessreviews.authorization.k8s.io
rw: rolebindings.rbac.authorization.k8s.io roles.rbac.authorization.k8s.io

= system:aggregate-to-edit +edit
read: pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy
impersonate: serviceaccounts
write: pods pods/attach pods/exec pods/portforward pods/proxy
create: pods/eviction
write: configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale
write: secrets serviceaccounts services services/proxy
create: serviceaccounts/token
write: daemonsets.apps deployments.apps deployments/rollback.apps deployments/scale.apps replicasets.apps replicasets/scale.apps
write: statefulsets.apps statefulsets/scale.apps
write: horizontalpodautoscalers.autoscaling cronjobs.batch jobs.batch
write: daemonsets.extensions deployments.extensions deployments/rollback.extensions deployments/scale.extensions ingresses.extensions
write: networkpolicies.extensions replicasets.extensions replicasets/scale.extensions replicationcontrollers/scale.extensions
write: poddisruptionbudgets.policy ingresses.networking.k8s.io networkpolicies.networking.k8s.io
rw: leases.coordination.k8s.io
write: resourceclaims.resource.k8s.io resourceclaimtemplates.resource.k8s.io

= system:aggregate-to-view +view
read: configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers replicationcontrollers/scale
read: serviceaccounts services services/status
read: bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status
read: namespaces endpointslices.discovery.k8s.io
read: controllerrevisions.apps daemonsets.apps daemonsets/status.apps deployments.apps deployments/scale.apps deployments/status.apps
read: replicasets.apps replicasets/scale.apps replicasets/status.apps statefulsets.apps statefulsets/scale.apps statefulsets/status.apps
read: horizontalpodautoscalers.autoscaling horizontalpodautoscalers/status.autoscaling
read: cronjobs.batch cronjobs/status.batch jobs.batch jobs/status.batch
read: daemonsets.extensions daemonsets/status.extensions deployments.extensions deployments/scale.extensions deployments/status.extensions
read: ingresses.extensions ingresses/status.extensions networkpolicies.extensions replicasets.extensions replicasets/scale.extensions
read: replicasets/status.extensions replicationcontrollers/scale.extensions
read: poddisruptionbudgets.policy poddisruptionbudgets/status.policy
read: ingresses.networking.k8s.io ingresses/status.networking.k8s.io networkpolicies.networking.k8s.io
read: resourceclaims.resource.k8s.io resourceclaims/status.resource.k8s.io resourceclaimtemplates.resource.k8s.io

= system:heapster
read: events namespaces nodes pods deployments.extensions

= system:node-problem-detector
get: nodes
patch: nodes/status
create,patch,update: events events.events.k8s.io

= system:node-proxier -> User:system:kube-proxy
list,watch: services endpoints endpointslices.discovery.k8s.io servicecidrs.networking.k8s.io
get,list,watch: nodes
create,patch,update: events events.events.k8s.io

= system:kubelet-api-admin
get,list,watch: nodes
proxy: nodes
*: nodes/log nodes/metrics nodes/proxy nodes/stats nodes/configz nodes/healthz nodes/pods

= system:node-bootstrapper
create,get,list,watch: certificatesigningrequests.certificates.k8s.io

= system:auth-delegator
create: tokenreviews.authentication.k8s.io subjectaccessreviews.authorization.k8s.io

= system:kube-aggregator
get,list,watch: services endpoints

= system:kube-dns -> ServiceAccount:kube-system:kube-dns
list,watch: endpoints services

= system:persistent-volume-provisioner
create,delete,get,list,watch: persistentvolumes
get,list,update,watch: persistentvolumeclaims
get,list,watch: storageclasses.storage.k8s.io
watch: events
create,patch,update: events events.events.k8s.io

= system:certificates.k8s.io:certificatesigningrequests:nodeclient
create: certificatesigningrequests/nodeclient.certificates.k8s.io

= system:certificates.k8s.io:certificatesigningrequests:selfnodeclient
create: certificatesigningrequests/selfnodeclient.certificates.k8s.io

= system:certificates.k8s.io:legacy-unknown-approver
approve: signers.certificates.k8s.io [kubernetes.io/legacy-unknown]

= system:certificates.k8s.io:kubelet-serving-approver
approve: signers.certificates.k8s.io [kubernetes.io/kubelet-serving]

= system:certificates.k8s.io:kube-apiserver-client-approver
approve: signers.certificates.k8s.io [kubernetes.io/kube-apiserver-client]

= system:certificates.k8s.io:kube-apiserver-client-kubelet-approver
approve: signers.certificates.k8s.io [kubernetes.io/kube-apiserver-client-kubelet]

= system:volume-scheduler -> User:system:kube-scheduler
get,list,patch,update,watch: persistentvolumes persistentvolumeclaims
get,list,watch: storageclasses.storage.k8s.io volumeattributesclasses.storage.k8s.io

= system:kube-scheduler -> User:system:kube-scheduler
create,patch,update: events events.events.k8s.io
create: leases.coordination.k8s.io
get,list,update,watch: leases.coordination.k8s.io [kube-scheduler]
get,list,watch: nodes
delete,get,list,watch: pods
create: bindings pods/binding
patch,update: pods/status
get,list,watch: namespaces services replicationcontrollers replicasets.apps replicasets.extensions statefulsets.apps
get,list,watch: poddisruptionbudgets.policy persistentvolumeclaims persistentvolumes
create: tokenreviews.authentication.k8s.io subjectaccessreviews.authorization.k8s.io
get,list,watch: csinodes.storage.k8s.io csidrivers.storage.k8s.io csistoragecapacities.storage.k8s.io
get,list,watch: deviceclasses.resource.k8s.io resourceslices.resource.k8s.io resourceclaims.resource.k8s.io
patch,update: resourceclaims.resource.k8s.io resourceclaims/status.resource.k8s.io resourceclaims/binding.resource.k8s.io

= system:kube-controller-manager -> User:system:kube-controller-manager
create,patch,update: events events.events.k8s.io
create: leases.coordination.k8s.io
get,list,update,watch: leases.coordination.k8s.io [kube-controller-manager]
create,get: secrets serviceaccounts
delete: secrets
get: configmaps namespaces
update: secrets serviceaccounts
create: tokenreviews.authentication.k8s.io subjectaccessreviews.authorization.k8s.io
list,watch: *.*
create: serviceaccounts/token

= korch:controllers -> User:system:kube-controller-manager
read,patch,update,delete,deletecollection: *.*
create: pods events configmaps serviceaccounts endpoints persistentvolumes persistentvolumeclaims pods/eviction pods/binding
create: replicasets.apps controllerrevisions.apps jobs.batch endpointslices.discovery.k8s.io resourceclaims.resource.k8s.io
create: volumeattachments.storage.k8s.io
escalate: clusterroles.rbac.authorization.k8s.io
approve,sign: signers.certificates.k8s.io
get: /**

= korch:node -> Group:system:nodes
get,list,watch: nodes endpoints
get,list,watch: endpointslices.discovery.k8s.io servicecidrs.networking.k8s.io

= korch:join -> Group:system:authenticated Group:system:unauthenticated
get: /korch/v1/ca

= korch:bootstrapper -> Group:system:bootstrappers
post: /korch/v1/join
"""

# The roles of upstream's single controllers, for those that run as the service account of that name in kube-system.
CONTROLLER_ROLES = """
= attachdetach-controller
list,watch: persistentvolumeclaims persistentvolumes
get,list,watch: nodes
patch,update: nodes/status
list,watch: pods
create,delete,get,list,watch: volumeattachments.storage.k8s.io
get,list,watch: csidrivers.storage.k8s.io csinodes.storage.k8s.io

= clusterrole-aggregation-controller
escalate,get,list,patch,update,watch: clusterroles.rbac.authorization.k8s.io

= cronjob-controller
get,list,update,watch: cronjobs.batch
create,delete,get,list,patch,update,watch: jobs.batch
update: cronjobs/status.batch cronjobs/finalizers.batch
delete,list: pods

= daemon-set-controller
get,list,watch: daemonsets.apps
update: daemonsets/status.apps daemonsets/finalizers.apps
list,watch: nodes
create,delete,list,patch,watch: pods
create: pods/binding
create,delete,get,list,patch,update,watch: controllerrevisions.apps

= deployment-controller
get,list,update,watch: deployments.apps
update: deployments/status.apps deployments/finalizers.apps
create,delete,get,list,patch,update,watch: replicasets.apps
get,list,update,watch: pods

= device-taint-eviction-controller
get,list,watch,delete: pods
update,patch: pods/status
get,list,watch: resourceclaims.resource.k8s.io resourceslices.resource.k8s.io deviceclasses.resource.k8s.io devicetaintrules.resource.k8s.io
update,patch: devicetaintrules/status.resource.k8s.io

= disruption-controller
get,list,watch: deployments.apps replicasets.apps replicationcontrollers statefulsets.apps pods
get,list,watch: poddisruptionbudgets.policy
update: poddisruptionbudgets/status.policy
get: *.* */scale.*
patch,update: pods/status

= endpoint-controller
get,list,watch: pods services
create,delete,get,list,update: endpoints
create: endpoints/restricted

= endpointslice-controller
get,list,watch: nodes pods services
update: services/finalizers
create,delete,get,list,update: endpointslices.discovery.k8s.io

= endpointslicemirroring-controller
get,list,watch: endpoints services
update: services/finalizers endpoints/finalizers
create,delete,get,list,update: endpointslices.discovery.k8s.io

= ephemeral-volume-controller
update: pods/finalizers
get,list,watch: pods
create,get,list,watch: persistentvolumeclaims

= expand-controller
get,list,patch,update,watch: persistentvolumes
patch,update: persistentvolumeclaims/status
get,list,watch: persistentvolumeclaims
get,list,watch: storageclasses.storage.k8s.io
get: endpoints services secrets

= generic-garbage-collector
delete,get,list,patch,update,watch: *.*

= horizontal-pod-autoscaler
get,list,watch: horizontalpodautoscalers.autoscaling
update: horizontalpodautoscalers/status.autoscaling
get,update: */scale.*
list: pods
list: pods.metrics.k8s.io
get,list: *.custom.metrics.k8s.io *.external.metrics.k8s.io

= job-controller
get,list,patch,update,watch: jobs.batch
update: jobs/status.batch jobs/finalizers.batch
create,delete,list,patch,watch: pods

= legacy-service-account-token-cleaner
get: configmaps [kube-apiserver-legacy-service-account-token-tracking]
delete,patch: secrets

= namespace-controller
get,list,watch,delete: namespaces
update: namespaces/finalize namespaces/status
delete,deletecollection,get,list: *.*

= node-controller
delete,get,list,patch,update: nodes
patch,update: nodes/status
delete,get,list,patch,update: pods
patch,update: pods/status

= persistent-volume-binder
create,delete,get,list,update,watch: persistentvolumes
update: persistentvolumes/status persistentvolumeclaims/status
get,list,update,watch: persistentvolumeclaims
create,delete,get,list,watch: pods
get,list,watch: storageclasses.storage.k8s.io nodes
create,delete,get,update: endpoints services
get,list: secrets

= pod-garbage-collector
delete,list,watch: pods
get,list: nodes
patch: pods/status

= pv-protection-controller
get,list,update,watch: persistentvolumes

= pvc-protection-controller
get,list,update,watch: persistentvolumeclaims
get,list,watch: pods

= replicaset-controller
get,list,update,watch: replicasets.apps
update: replicasets/status.apps replicasets/finalizers.apps
create,delete,list,patch,watch: pods

= replication-controller
get,list,update,watch: replicationcontrollers
update: replicationcontrollers/status replicationcontrollers/finalizers
create,delete,list,patch,watch: pods

= resource-claim-controller
update: pods/finalizers
get,list,watch: pods
create,delete,get,list,watch: resourceclaims.resource.k8s.io
patch,update: resourceclaims/status.resource.k8s.io
get,list,watch: resourceclaimtemplates.resource.k8s.io
patch,update: pods/status

= resourcequota-controller
list,watch: *.*
update: resourcequotas/status

= root-ca-cert-publisher
create,update: configmaps

= route-controller
list,watch: nodes
patch: nodes/status

= selinux-warning-controller
get,list,watch: persistentvolumeclaims persistentvolumes pods csidrivers.storage.k8s.io

= service-account-controller
create: serviceaccounts

= service-cidrs-controller
get,list,patch,update,watch: servicecidrs.networking.k8s.io
patch,update: servicecidrs/finalizers.networking.k8s.io servicecidrs/status.networking.k8s.io
get,list,watch: ipaddresses.networking.k8s.io

= service-controller
get,list,watch: services
patch,update: services/status
list,watch: nodes

= statefulset-controller
list,watch: pods
get,list,watch: statefulsets.apps
update: statefulsets/status.apps statefulsets/finalizers.apps
create,delete,get,patch,update: pods
create,delete,get,list,patch,update,watch: controllerrevisions.apps
create,get,update,delete: persistentvolumeclaims

= storage-version-migrator-controller
list,watch,update: storageversionmigrations.storagemigration.k8s.io
update: storageversionmigrations/status.storagemigration.k8s.io
get,list,patch: *.*

= taint-eviction-controller
get,list,watch: nodes
delete,get,list,watch: pods
patch,update: pods/status

= ttl-after-finished-controller
delete,get,list,watch: jobs.batch

= ttl-controller
list,patch,update,watch: nodes

= validatingadmissionpolicy-status-controller
get,list,watch: validatingadmissionpolicies.admissionregistration.k8s.io
patch,update: validatingadmissionpolicies/status.admissionregistration.k8s.io

= volumeattributesclass-protection-controller
get,list,update,watch: volumeattributesclasses.storage.k8s.io persistentvolumeclaims persistentvolumes

= certificate-controller
delete,get,list,watch: certificatesigningrequests.certificates.k8s.io
update: certificatesigningrequests/approval.certificates.k8s.io certificatesigningrequests/status.certificates.k8s.io
approve,sign: signers.certificates.k8s.io [kubernetes.io/kube-apiserver-client-kubelet]
sign: signers.certificates.k8s.io [kubernetes.io/kube-apiserver-client kubernetes.io/kubelet-serving kubernetes.io/legacy-unknown]
create: subjectaccessreviews.authorization.k8s.io
"""

# `= NAMESPACE/NAME [-> subjects]`: roles in one namespace, bound there under the same name.
ROLES = """
= kube-system/extension-apiserver-authentication-reader -> User:system:kube-controller-manager User:system:kube-scheduler
get,list,watch: configmaps [extension-apiserver-authentication]

= kube-system/system:controller:bootstrap-signer -> ServiceAccount:kube-system:bootstrap-signer
get,list,watch: secrets

= kube-system/system:controller:cloud-provider -> ServiceAccount:kube-system:cloud-provider
create,get,list,watch: configmaps

= kube-system/system:controller:token-cleaner -> ServiceAccount:kube-system:token-cleaner
delete,get,list,watch: secrets

= kube-system/system::leader-locking-kube-controller-manager -> User:system:kube-controller-manager
watch: configmaps
get,update: configmaps [kube-controller-manager]

= kube-system/system::leader-locking-kube-scheduler -> User:system:kube-scheduler
watch: configmaps
get,update: configmaps [kube-scheduler]

= kube-system/korch:leader-locking-schedulers -> User:system:kube-scheduler
get,list,update,watch: leases.coordination.k8s.io

= kube-public/system:controller:bootstrap-signer -> ServiceAccount:kube-system:bootstrap-signer
get,list,watch: configmaps
update: configmaps [cluster-info]
create,patch,update: events events.events.k8s.io
"""

# What the gate GenericWorkload adds to roles.
WORKLOAD_ROLES = """
= system:kube-scheduler
get,list,watch: podgroups.scheduling.k8s.io
patch,update: podgroups/status.scheduling.k8s.io

= system:aggregate-to-view
get,list,watch: workloads.scheduling.k8s.io podgroups.scheduling.k8s.io podgroups/status.scheduling.k8s.io

= system:aggregate-to-edit
create,delete,deletecollection,patch,update: workloads.scheduling.k8s.io podgroups.scheduling.k8s.io
"""

# A controller that runs only with the gate GenericWorkload.
WORKLOAD_CONTROLLER_ROLES = """
= podgroup-protection-controller
get,list,watch,update: podgroups.scheduling.k8s.io
get,list,watch: pods
"""
