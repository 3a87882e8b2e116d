# A model fitted in R as a model card of Osteonode. Needs glmnet, rms and jsonlite.
#
#   source("tools/model_card.R")
#   write_model_card("model.json", lasso = cv$glmnet.fit, lambda = cv$lambda.1se, centre = centre, scale = scale,
#                    combined = fit, ...)
#
# lasso     glmnet's fit (family "binomial", 1 = osteoporosis) on columns scaled as (value - centre) / scale;
#           columns bear pyradiomics' names.
# centre, scale   named vectors: means and SDs of the training patients.
# combined  lrm's fit (rms) of osteoporosis on rad_score, age, alp and homocysteine, where rad_score is the
#           lasso's linear predictor.
# axes      a list of c(from, to) by term: the range of the training patients, which the nomogram draws and does not
#           leave. plausible: what is no mistake.
# applicability   list(kvp =, slice_spacing_mm =, pixel_spacing_mm = c(from, to) each, equivalent = "HA" or "K2HPO4").
# radiomics_sha256   of config/radiomics.yaml, as `osteonode features` notes it in FEATURES.csv.json.
# label     how the classes of the training came about, in words.
write_model_card <- function(file, name, version, label, lasso, lambda, centre, scale, combined, axes, plausible,
                             applicability, radiomics_sha256, training = list(), notice = "Fitted in R",
                             documented = "wavelet-LLL_firstorder_10Percentile") {
  stopifnot(inherits(lasso, "lognet"), inherits(combined, "lrm"))
  weights <- as.matrix(coef(lasso, s = lambda, exact = FALSE))[, 1]
  kept <- setdiff(names(weights)[weights != 0], "(Intercept)")
  stopifnot(length(kept) > 0, all(kept %in% names(centre)), all(kept %in% names(scale)))
  units <- c(rad_score = "1", age = "a", alp = "U/L", homocysteine = "umol/L")
  shown <- c(rad_score = "Rad-score", age = "Age", alp = "ALP", homocysteine = "Homocysteine")
  effect <- coef(combined)
  stopifnot(setequal(names(effect), c("Intercept", names(units))))
  one <- jsonlite::unbox
  pair <- function(range) as.numeric(range)
  packages <- c("glmnet", "rms")
  software <- lapply(setNames(packages, packages), function(p) one(as.character(packageVersion(p))))
  card <- list(
    schema = one("osteonode-model-card"), schema_version = one(1L), name = one(name), version = one(version),
    demonstration = one(FALSE), notice = one(notice),
    positive_class = one("osteoporosis"), negative_class = one("osteopenia"), label = one(label),
    rad_score = list(
      intercept = one(unname(weights["(Intercept)"])),
      features = lapply(kept, function(f) list(
        name = one(f), mean = one(unname(centre[f])), sd = one(unname(scale[f])),
        coefficient = one(unname(weights[f])), origin = one(if (f %in% documented) "documented" else "chosen")
      ))
    ),
    clinical = list(
      intercept = one(unname(effect["Intercept"])),
      terms = lapply(names(units), function(t) list(
        name = one(t), label = one(unname(shown[t])), unit = one(unname(units[t])),
        coefficient = one(unname(effect[t])), axis = pair(axes[[t]]), plausible = pair(plausible[[t]])
      ))
    ),
    applicability = list(
      kvp = pair(applicability$kvp), slice_spacing_mm = pair(applicability$slice_spacing_mm),
      pixel_spacing_mm = pair(applicability$pixel_spacing_mm), equivalent = one(applicability$equivalent)
    ),
    software = c(list(R = one(as.character(getRversion()))), software),
    radiomics_settings_sha256 = one(radiomics_sha256),
    training = c(list(lambda = one(lambda)), lapply(training, one))
  )
  writeLines(jsonlite::toJSON(card, digits = NA, pretty = TRUE), file)
}
