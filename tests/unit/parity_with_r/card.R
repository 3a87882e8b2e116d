# A card exported from R, and R's own predictions of the same patients:  Rscript tests/unit/parity_with_r/card.R
suppressMessages({library(glmnet); library(rms)})
folder <- dirname(normalizePath(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE))))
source(file.path(folder, "..", "..", "..", "tools", "model_card.R"))
cohort <- read.csv(file.path(folder, "cohort.csv"))
x <- as.matrix(cohort[, 1:12]); y <- cohort$y
colnames(x) <- paste0("original_firstorder_", c("10Percentile", "90Percentile", "Energy", "Entropy", "Kurtosis",
                      "Maximum", "Mean", "Median", "Minimum", "Range", "Skewness", "Variance"))
centre <- colMeans(x); spread <- apply(x, 2, sd)
fit <- glmnet(scale(x, centre, spread), y, family = "binomial", thresh = 1e-12)
lambda <- fit$lambda[20]
patients <- data.frame(
  rad_score = as.numeric(predict(fit, scale(x, centre, spread), s = lambda)),
  age = cohort$age, alp = cohort$alp, homocysteine = cohort$hcy, y = y
)
combined <- lrm(y ~ rad_score + age + alp + homocysteine, data = patients)
write_model_card(
  file.path(folder, "card.json"), name = "from-r", version = "1", label = "drawn by R's generator",
  lasso = fit, lambda = lambda, centre = centre, scale = spread, combined = combined,
  axes = list(rad_score = c(-3, 3), age = c(40, 90), alp = c(30, 180), homocysteine = c(5, 30)),
  plausible = list(rad_score = c(-9, 9), age = c(18, 110), alp = c(5, 2000), homocysteine = c(1, 300)),
  applicability = list(kvp = c(119, 121), slice_spacing_mm = c(0.9, 1.1), pixel_spacing_mm = c(0.5, 0.9), equivalent = "HA"),
  radiomics_sha256 = strrep("0", 64), training = list(patients = nrow(cohort))
)
write.csv(data.frame(rad_score = patients$rad_score, probability = predict(combined, type = "fitted")),
          file.path(folder, "predictions.csv"), row.names = FALSE)
