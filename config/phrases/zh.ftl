# The words of the pictures, and those that findings fill in, in simplified Chinese; en.ftl says what each means.
# What stands in {braces} is filled in.

## Every picture
research-use-only = 仅供研究使用
demonstration-model = 演示模型 - 不得用于临床
demonstration-reference = 演示参考人群 - 不得用于临床
study-of-date = 检查日期 { $date }
unknown-date = 日期不详
issued-at = 签发 { $time }
preliminary-result = 软件初步结果，未经审核
amended-earlier = 已修订，取代此前的报告
amended-report-of = 已修订，取代 { $time } 的报告
amended-images = 后续图像到达
amended-segmentation = 后续分割结果到达
amended-unrecorded = 归档中存有本节点没有记录的既往报告
amended-identity = 患者或申请单标识已更正
made-with-segmentation = 分割 { $name }
made-with-model = 模型 { $name }
made-with-configuration = 配置 { $hash }
more-findings = 另有 { $count } 条，见结构化报告
more-in-report = 其余内容见结构化报告
severity-refusal = 拒绝
severity-caution = 注意
severity-info = 说明

## Values
equivalent-of = { $mineral } 等效
mean-of-levels = { $levels } 平均值
interval = { $low } 至 { $high }
years = 岁
normal = 骨密度正常
low-bone-mass = 骨量减低
osteoporosis = 骨质疏松
osteopenia = 骨量减少
class-normal = 正常（T ≥ −1）
class-osteopenia = 骨量减少（−2.5 < T < −1）
class-osteoporosis = 骨质疏松（T ≤ −2.5）
region-core = 椎体中心松质骨
region-ellipse = 椎体中部椭圆区
grade-phantom = 体模同步扫描
grade-asynchronous = 体模此前扫描（异步校准）
grade-internal = 患者自身组织校准，仅供筛查
probability-of-class = { $positive }（相对于{ $negative }，按 T 值规则）的概率为 { $percent }
method-two-point = 两点法
method-least-squares = 最小二乘法
method-mindways = Mindways 法
method-internal = 自身组织法
method-asynchronous = 异步{ $method }
own-tissues = 自身组织
water = 水
air = 空气
adipose = 脂肪
blood = 血液
muscle = 肌肉

## The answer, and its table
title-answer = 腰椎 QCT：骨密度
category-is = QCT 骨密度分类 = { $category }
category-withheld = QCT 骨密度分类：不予给出
see-findings = 见下列提示
mean-of-two-levels = { $first } 与 { $second } 平均值：{ $bmd } mg/cm³（{ $mineral }）
converted-from = 由 { $mineral } 换算
density-rule = 判定标准：> 120 正常，80 至 120 骨量减低，< 80 骨质疏松
findings-title = 提示与注意事项
bmd = 骨密度
bmd-in = 骨密度，mg/cm³（{ $mineral }）
level = 椎体
level-unknown = 节段未知
interval95 = 95 % 区间
interval95-holds = 95 % 区间：包含噪声与校准误差，不包含骨髓脂肪误差
ellipse-column = 椭圆区 ±（k=1）
volume-column = 椎体体积，cm³
region-column = 区域，mm²
withheld = 不予给出
level-cut-off = 未完整扫描
no-level-measured = 未测得任何腰椎节段
t-score = T 值
z-score = Z 值
not-given = { $name }：未给出，见提示
score-basis = { $levels }：{ $bmd }；参考值 { $mean } ± { $sd } mg/cm³ { $mineral }
reference-named = 参考人群：{ $name }（{ $population }）；不等同于 DXA，WHO 分类不适用
study-rule = 研究规则（Xie 2022）
study-rule-is = 研究规则（Xie 2022）：{ $study_class }
study-rule-caveat = 为研究分类，不是诊断
model-results = 影像组学评分与列线图
rad-score-is = 影像组学评分 { $value }
nomogram-is = 列线图 { $points } 分：{ $probability }
nomogram-missing = 缺少数据：未计算列线图
calibration-line = 校准：{ $facts }
calibration-of-slices = 各切片以自身体模棒校准：{ $facts }
rods-read = 体模棒：{ $read }
tissues-read = 组织：{ $read }
tissues-read-at = 组织（{ $energy } keV）：{ $read }
technique-line = 扫描参数：{ $facts }
kv-not-stated = 管电压未注明
slice-thickness = 层厚 { $mm } mm
slice-distance = 层间距 { $mm } mm
slices-alone = 单层
kernel-named = 重建核 { $name }
contrast-agent = 对比剂：{ $agent }
contrast-left-open = 是否用对比剂不明

## The refusal
title-refusal = 未测量：不给出骨密度
also-noted = 其他提示

## The nomogram
title-nomogram = 列线图
this-patient = 本患者
points-column = 得分
points-axis = 分值
total-points-axis = 总分
probability-axis = 概率
rad-score-axis = 影像组学评分
age-axis = 年龄
alp-axis = 碱性磷酸酶
alkaline-phosphatase-axis = 碱性磷酸酶
homocysteine-axis = 同型半胱氨酸
taken-on = 采样 { $date }
date-not-stated = 日期未注明
total-points-are = 总分 { $points }：{ $probability }
measured-t-score = 实测 T 值 { $value }
classes-of-model = 类别按模型 { $name } 的训练定义；以实测值为准
rad-score-alone = 仅影像组学评分：{ $value }

## The measured regions
title-overlay = 测量区域
plane-sagittal = 矢状位
plane-axial = 横断位：{ $level }
middle-of-volume = 图像中部
legend-body = 轮廓：椎体
legend-region = 填充：{ $region }（骨密度测量区）
legend-rods = 圆圈：体模棒
legend-second-region = 虚线：{ $region }

## Single slices
title-slices = 测量切片：椎体节段未知
slice-level-unknown = { $slice }：节段未知
slice-bmd-withheld = 骨密度不予给出
slice-bmd = 骨密度 { $value } mg/cm³ { $mineral }
slice-technique = 层厚 { $mm } mm，倾斜 { $degrees }°
legend-slice-body = 轮廓：识别的椎体
legend-slice-region = 填充：骨密度测量区
legend-slice-rods = 圆圈：所读体模棒，mg/cm³ { $mineral }
no-rods = 无体模棒

## The calibration
title-calibration = 校准
rods-and-line = 体模棒与校准直线
across-density = 横轴：标称密度，mg/cm³ { $mineral }
up-hu = 纵轴：HU
up-hu-less-water = 纵轴：HU 减去棒内水的 HU
distance-from-line = 与直线的偏差，HU
bars-are-errors = 误差线：各均值的标准误
two-rods-on-line = 两根体模棒总在其直线上
rods-axial = 所读体模棒（横断位）
rods-elsewhere = 本图像中无体模棒：体模于{ $date }在本扫描仪上扫描。
earlier = 此前
rod-column = 体模棒
distance-column = 偏差
not-in-fit = 未参与拟合
rods-not-in-fit = 未参与拟合：{ $rods }
fact-method = 方法：{ $name }
fact-phantom = 体模：{ $name }
fact-grade = 等级：{ $grade }
fact-largest-distance = 最大偏差 { $hu } HU

## Lists
list = { $first }、{ $rest }
clauses = { $first }；{ $rest }
together = { $first }和{ $rest }
