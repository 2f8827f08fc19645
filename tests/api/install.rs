//! The definitions themselves: accepted without a warning, and with room to grow.

use http::Method;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt, api::Patch, api::PatchParams, runtime::wait::Condition, runtime::wait::conditions};
use pallet_api::crds;
use serde_json::{Value, json};

use crate::{
    request::{Answer, send},
    support::{self, MANAGER},
};

const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// The definition under a name that is free, since the API server looks at all of it only when it is new.
fn as_new(crd: &CustomResourceDefinition) -> Value {
    let mut crd = serde_json::to_value(crd).expect("JSON");
    crd["spec"]["group"] = json!("install.pallet.test");
    crd["metadata"]["name"] =
        json!(format!("{}.install.pallet.test", crd["spec"]["names"]["plural"].as_str().expect("a plural")));
    crd
}

async fn try_install(client: &kube::Client, crd: &Value) -> Answer {
    send(client, Method::POST, &format!("{PATH}?dryRun=All&fieldValidation=Strict"), "application/json", Some(crd))
        .await
}

#[tokio::test]
async fn installs_without_a_warning() {
    let Some(cluster) = support::cluster().await else { return };
    for crd in crds::all() {
        let answer = try_install(&cluster.client, &as_new(&crd)).await;
        assert_eq!(answer.code, 201, "{}", answer.message());
        assert_eq!(answer.warnings, Vec::<String>::new(), "{}", crd.name_any());
    }
}

/// A warning that is never given would make the test above worthless.
#[tokio::test]
async fn the_api_server_does_warn() {
    let Some(cluster) = support::cluster().await else { return };
    let mut crd = as_new(&crds::all()[0]);
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["count"]["format"] =
        json!("uint32");
    let answer = try_install(&cluster.client, &crd).await;
    assert!(answer.warnings.iter().any(|warning| warning.contains("unrecognized format")), "{:?}", answer.warnings);
}

#[tokio::test]
async fn is_established_and_applied_again_without_a_change() {
    let Some(cluster) = support::cluster().await else { return };
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    for crd in crds::all() {
        let name = crd.name_any();
        let kept = api.get(&name).await.expect("it is there");
        assert!(conditions::is_crd_established().matches_object(Some(&kept)), "{name}");
        assert!(
            kept.status.iter().flat_map(|s| s.conditions.iter().flatten()).all(|c| c.type_ != "NonStructuralSchema"),
            "{name} is not structural"
        );
        let again = api
            .patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&crd))
            .await
            .expect("it can be applied again");
        assert_eq!(again.metadata.generation, kept.metadata.generation, "{name}");
    }
}

/// The API server refuses a definition whose rules might cost too much. With every rule three times over it still has to
/// fit, so that rules can be added without thinking of it.
#[tokio::test]
async fn the_rules_cost_less_than_a_third_of_the_budget() {
    let Some(cluster) = support::cluster().await else { return };
    for crd in crds::all() {
        let mut crd = as_new(&crd);
        let mut rules = 0;
        triple(&mut crd, &mut rules);
        assert!(rules > 0, "no rules found");
        let answer = try_install(&cluster.client, &crd).await;
        assert_eq!(answer.code, 201, "{}", answer.message());
    }
}

fn triple(schema: &mut Value, found: &mut usize) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::Array(rules)) = map.get_mut("x-kubernetes-validations") {
                *found += rules.len();
                *rules = [rules.clone(), rules.clone(), rules.clone()].concat();
            }
            map.values_mut().for_each(|value| triple(value, found));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| triple(value, found)),
        _ => {}
    }
}
